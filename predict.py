"""Detect objects in images, folders and videos, visualize attention, measure the speed.

examples:
  python predict.py --source street.jpg                       newest run, result in runs/predict
  python predict.py --source a.jpg b.jpg --weights runs/voc --json detections.json
  python predict.py --source photos --out results             a folder; subfolders are kept
  python predict.py --source photos --save image txt csv crops --out results
  python predict.py --source photos --save coco predict.score=0.001 predict.max_detections=100
  python predict.py --source photos --classes person car --score 0.5
  python predict.py --source aerial.png --tile 416 --overlap 0.2    small objects
  python predict.py --source drive.mp4 --out result.mp4
  python predict.py --source 0 --show                         camera 0; q or Esc quits
  python predict.py --source drive.mp4 --track bytetrack --line 0,300,640,300   ids and counts
  python predict.py --mode fps --backend auto                 measure all backends, use the fastest
  python predict.py --mode heatmap --source street.jpg        attention and the best detection
  python predict.py --mode heatmap --source street.jpg --site feat1 --point 320,200 --class car
"""

import argparse

from utils.core.arguments import CommandParser, integer, number, separate_overrides
from utils.core.cli import add_backend, add_tiling, add_weights, run_command


def parse() -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_argument(
        "--mode",
        choices=("image", "dir", "video", "fps", "heatmap"),
        help="default: as the source is: images and folders, or a video",
    )
    parser.add_argument(
        "--source",
        nargs="+",
        help="images, folders of images, video files, a stream (rtsp://...) or the number of a "
        "camera; heatmap: images; fps: an image. Default: validation images of the run's dataset",
    )
    add_weights(parser)
    _add_outputs(parser)
    parser.add_argument(
        "--classes",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="detect only these classes; default: all",
    )
    parser.add_argument(
        "--score", type=number(0, 1), help="minimum score, 0 to 1; default: the run's predict.score"
    )
    parser.add_argument(
        "--nms-iou",
        type=number(0, 1),
        help="IoU threshold of NMS, 0 to 1; default: the run's predict.nms_iou",
    )
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1 or mps; default: the run's")
    add_backend(parser)
    add_tiling(parser)
    parser.add_argument(
        "--precision", help="auto, fp32, bf16, fp16 or int8 (openvino); default: the run's"
    )
    parser.add_argument(
        "--show", action="store_true", help="open a window: any key for the next, q or Esc quits"
    )
    _add_video(parser)
    _add_heatmap(parser)
    parser.add_overrides("e.g. predict.nms_iou=0.6 input_size=608; output=DIR: folder of the runs")
    args = parser.parse_intermixed_args()
    separate_overrides(args, "source", "save", "classes")
    return args


def _add_outputs(parser: CommandParser) -> None:
    parser.add_argument(
        "--out", help="folder, or a file for one image or video; default: runs/predict, -2, ..."
    )
    parser.add_argument("--json", metavar="FILE", help="also write the detections as a JSON list")
    parser.add_argument(
        "--save",
        nargs="+",
        action="extend",
        metavar="FORMAT",
        help="what to write to --out, of image (with boxes), txt (as Ultralytics' save_txt), coco "
        "(results), csv, crops, json; default: image",
    )
    parser.add_argument("--save-conf", action="store_true", help="txt: add the score to each line")


def _add_video(parser: CommandParser) -> None:
    video = parser.add_argument_group("video")
    video.add_argument(
        "--timeout",
        type=number(0.1, 86_400),
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for a frame of a stream (rtsp://...); default: 10",
    )
    video.add_argument(
        "--reconnect",
        type=number(0, 86_400),
        metavar="SECONDS",
        help="how long to go on trying when a stream is lost; 0: end at once; default: 60",
    )
    video.add_argument(
        "--every",
        type=integer(1, 1_000_000),
        metavar="N",
        help="detect on frames 0, N, 2N, ... only; those in between show the last boxes, and are "
        "not in the JSON list, whose frame numbers are the video's; default: 1",
    )
    video.add_argument(
        "--track", metavar="TRACKER", help="give objects an id: bytetrack, sort or ocsort"
    )
    video.add_argument(
        "--line",
        metavar="X1,Y1,X2,Y2",
        help="count the objects that cross this line, in pixels; needs --track",
    )


def _add_heatmap(parser: CommandParser) -> None:
    heatmap = parser.add_argument_group("heatmap")
    heatmap.add_argument(
        "--site", help="show only this site; default: sites with attention, feat1 and feat2"
    )
    heatmap.add_argument(
        "--point",
        metavar="X,Y",
        help="pixel whose attention is shown; default: the center of the detection",
    )
    heatmap.add_argument(
        "--class",
        dest="class_name",
        metavar="NAME",
        help="class to explain; default: that of the best detection",
    )


def main() -> None:
    args = parse()
    # imported here so that `--help` is immediate and `run_command` can report a missing library
    from utils.engine.prediction import PredictOptions, predict

    print(predict(PredictOptions(**vars(args))))


if __name__ == "__main__":
    run_command(main)
