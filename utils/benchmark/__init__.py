"""How fast everything is, measured side by side in one run: `python -m utils.benchmark`.

The content of `--json`, whose keys stay:

    command     the command line
    machine     device, CPU, cores, threads, gpu (null without one), precision (in force), versions (by library)
    settings    input_size, batch_size, phi, classes, gflops (10^9 operations an image), weights, quick, full
    sections    by name: title, notes, and rows; a row has
                  key            what it is, e.g. "train.epoch.bf16"
                  what, unit     the same for readers; the unit of `value`
                  value          median, q1, q3 (quartiles) and n (rounds)
                  ratio, over    the same of the ratio, each round's to that round's of `over`; null where there is none
                  gflops         10^9 operations a second, median; null where they are not counted
                  share_of_peak  of the matrix product's rate in the same rounds and precision, 0..1; or null
                  target         bound, at_least (else at most), of ("value" or "ratio"), met; or null
    targets     met, missed: keys of rows
    seconds     wall-clock time of the run
"""
