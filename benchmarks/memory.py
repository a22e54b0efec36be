"""Peak memory of `lyot run` on 60 x 200 frames of 320 x 320, against its bound."""

from common import machine, observation, reduce


def main() -> None:
    """Print the peak and the bound, with the 3-D and the 4-D product."""
    print(machine())
    association = observation("run60", (30, 30), (50, 50, 50, 50))
    plane = 320 * 320 * 4 / 2**20
    exposure = max(p.stat().st_size for p in association.parent.glob("*_calints.fits")) / 2**20
    bound = 1024 + 2.5 * exposure + 4 * 200 * plane
    for align_to in ("first", "all"):
        ours = reduce(association, align_to)
        verdict = "yes" if ours.peak_mb < bound else "NO"
        print(
            f"lyot run, 60 x 200, align_to = {align_to}: {ours.seconds:.0f} s, peak "
            f"{ours.peak_mb:.0f} MB, bound {bound:.0f} MB: {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
