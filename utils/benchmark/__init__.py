"""The speed of every part, measured side by side in one run: `python -m utils.benchmark`.

The content of `--json`, whose keys are stable:

    command     the command line
    machine     device, cpu, cores, threads, gpu (null without one), precision, versions
    settings    input_size, batch_size, phi, classes, gflops (10^9 operations per image), weights,
                quick, full
    sections    by name: title, notes and rows; a row has
                  key            identifies the row, e.g. "train.epoch.bf16"
                  what, unit     a label for readers; the unit of `value`
                  value          median, q1, q3 (quartiles) and n (rounds)
                  ratio, over    the same for the ratio, taken within each round, to row `over`
                                 (a key without its section); or null
                  gflops         10^9 operations per second, median; or null
                  share_of_peak  of the GEMM rate in the same rounds and precision, 0..1; or null
                  target         bound, at_least (else at most), of ("value" or "ratio") and met;
                                 or null
    targets     met, missed: keys of rows
    seconds     wall-clock time of the run
"""
