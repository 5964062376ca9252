"""How the numbers of a report are computed: the words that stand in every report."""

from utils.compare.analysis import Comparison
from utils.compare.stats import ALPHA, MIN_SEEDS, sign_floor
from utils.compare.wording import probability


def method(comparison: Comparison) -> list[tuple[str, str]]:
    """(heading, paragraph) pairs."""
    count = len(comparison.plan.seeds)
    family = sum(pair.ap.seeds >= MIN_SEEDS for pair in comparison.pairs)
    floor = sign_floor(count)
    reach = (
        f"so with {count} seeds it cannot fall below {ALPHA}, whatever the difference"
        if floor > ALPHA
        else f"which {count} seeds can reach"
    )
    return [
        (
            "What is compared",
            f"Every setting was trained with the seeds {', '.join(map(str, comparison.plan.seeds))}. One seed gives "
            "all settings the same order of images, the same augmentation and the same start of the shared layers, "
            "so differences are taken seed by seed. AP is COCO's (IoU 0.50:0.05:0.95), of the best weights of each "
            f"training, on the {comparison.images} test images, in points (0 to 100); ± is the standard deviation "
            "between seeds (n − 1). The best epoch is chosen on the same images, which flatters all settings alike.",
        ),
        (
            "95% over seeds",
            "Student's paired t interval of the mean AP difference: what would another set of seeds give, on these "
            "test images? A bootstrap over so few seeds would be too narrow (over three by a factor of about 2.7: "
            "it neither divides by n − 1 nor widens for an uncertain spread), so it is not used.",
        ),
        (
            "95% over images",
            f"Paired bootstrap over test images: {comparison.resamples} times as many images as there are were "
            "drawn with replacement, the same ones for all settings and seeds; AP was computed anew from all their "
            "detections (AP is no mean over images), averaged over seeds and subtracted; the 2.5 and 97.5 "
            "percentiles are given. What would other images of the same kind give, for these trained networks?",
        ),
        (
            "95% seeds and images",
            "For new seeds and new images: the distances from the mean to the ends of the two intervals are added "
            "as squares (the method of Zou and Donner). What seeds and images do only together is in both, so the "
            "interval is rather too wide than too narrow.",
        ),
        (
            "Verdict",
            "Student's paired t test over seeds on AP, two-sided, corrected by Holm's method over the "
            f"{family} comparisons with seeds enough: the chance that any of them claims a difference where there is "
            f"none is at most {100 * ALPHA:.0f} %. It speaks of these test images; where the interval for seeds and "
            f"images contains zero, other images may say otherwise. Fewer than {MIN_SEEDS} seeds get no verdict: "
            "two differences agree by chance too easily where noise is not bell-shaped. AP50 and single classes are "
            "shown without a verdict; their intervals are not corrected.",
        ),
        (
            "Sign-flip p",
            "Exact permutation test: the share of all 2ⁿ sign patterns of the differences whose mean is at least as "
            "far from zero. Its least value is 2 / 2ⁿ (0.25 for three seeds, 0.0625 for five, 0.031 for six), here "
            f"{probability(floor)}, {reach}. It assumes nothing about the shape of the noise, and stands beside the "
            "t test for that.",
        ),
        (
            "Effect, power, seeds needed",
            "g is Hedges' g of the paired differences (Cohen's d_z, corrected for few seeds; from three on). Power is "
            "the chance that so many seeds find a true difference of 1 AP, from the noncentral t distribution with "
            f"the observed spread at level {ALPHA} / {max(family, 1)}; seeds needed are those for 80 %. In brackets "
            "the same from the ends of the spread's 95% interval (chi-square): few seeds know their spread roughly.",
        ),
        (
            "Price",
            "Latency is the median time of one image, end to end (letterbox, network, NMS), batch 1, measured after "
            "all trainings with the settings taking turns. GFLOPs count two operations for a multiply-add. Training "
            "time is the training loop's, without evaluation, the median over seeds.",
        ),
    ]
