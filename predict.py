"""Detect objects in images, folders, video files and cameras, show the attention, and measure the speed.

examples:
  python predict.py --source street.jpg                       newest run's weights, result in runs/predict
  python predict.py --source a.jpg b.jpg --weights runs/voc --json found.json
  python predict.py --mode dir --source photos --out found    sub-folders are kept
  python predict.py --mode video --source drive.mp4 --out found.mp4
  python predict.py --mode video --show                       camera 0; q or Esc ends
  python predict.py --mode fps --backend auto                 measures the backends, takes the fastest
  python predict.py --mode heatmap --source street.jpg        what attention and the best detection look at
  python predict.py --mode heatmap --source street.jpg --site feat1 --point 320,200 --class car
"""

import argparse

from utils.core.cli import add_backend, add_weights, run_command

MODES = ("image", "dir", "video", "fps", "heatmap")
VALIDATION_PICTURES = 16  # shown where no source is given
EXPLAINED_PICTURES = 4


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=MODES, default="image", help="default: image")
    parser.add_argument(
        "--source",
        nargs="+",
        help="image, heatmap: image files; dir: a folder; video: a file, stream or camera number (default: 0); "
        "fps: a picture. Default: validation images of the run's dataset",
    )
    add_weights(parser)
    parser.add_argument(
        "--out", help="folder, or the file for one image or a video; default: runs/predict, -2, ..."
    )
    parser.add_argument("--json", metavar="FILE", help="also write the detections as a JSON list")
    parser.add_argument(
        "--score", type=float, help="lowest score shown, 0 to 1; default: the run's predict.score"
    )
    parser.add_argument(
        "--nms-iou",
        type=float,
        help="IoU above which the weaker box is dropped; default: the run's",
    )
    parser.add_argument(
        "--device", default=None, help="auto, cpu, cuda, cuda:1 or mps; default: the run's"
    )
    add_backend(parser)
    parser.add_argument(
        "--precision", help="auto, fp32, bf16, fp16 or int8 (openvino); default: the run's"
    )
    parser.add_argument(
        "--show", action="store_true", help="show in a window: any key for the next, q or Esc ends"
    )
    heat = parser.add_argument_group("heatmap")
    heat.add_argument(
        "--site", help="only this site; default: those with attention, feat1 and feat2"
    )
    heat.add_argument(
        "--point",
        metavar="X,Y",
        help="whose attention, in pixels; default: the middle of the detection",
    )
    heat.add_argument(
        "--class",
        dest="name",
        metavar="NAME",
        help="class to explain; default: the best detection's",
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    # imported here, where `run_command` tells of a missing library
    from utils.engine import explanation, prediction
    from utils.engine.calibration import open_detector
    from utils.engine.runs import find_weights, validation_pictures
    from utils.engine.speed import measure_fps

    several = args.mode in ("image", "heatmap") or not args.source
    source = args.source if several else prediction.one_source(args.source, args.mode)
    limits = prediction.limit_changes(args.score, args.nms_iou)
    how = {"backend": args.backend, "precision": args.precision}
    if args.mode == "heatmap":  # gradients and small weights, as exact as they can be
        how = {"backend": "torch", "precision": "fp32"}
    model = open_detector(find_weights(args.weights), limits, device=args.device, **how)
    if args.mode == "video":
        print(prediction.predict_video(model, source or 0, args.out, args.json, show=args.show))
    elif args.mode == "dir" and source:
        print(prediction.predict_folder(model, source, args.out, args.json, show=args.show))
    else:
        single = [source] if isinstance(source, str) else source
        count = EXPLAINED_PICTURES if args.mode == "heatmap" else VALIDATION_PICTURES
        pictures = (
            prediction.file_pictures(single) if single else validation_pictures(model.config, count)
        )
        if args.mode == "fps":
            print(measure_fps(model, pictures[0][1]()))
        elif args.mode == "heatmap":
            want = explanation.wanted(model, args.site, args.point, args.name)
            print(explanation.explain_images(model, pictures, want, args.out, args.json, args.show))
        else:
            print(prediction.predict_images(model, pictures, args.out, args.json, show=args.show))


if __name__ == "__main__":
    run_command(main)
