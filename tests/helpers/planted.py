"""Pictures with a planted bright square, and folders of bright and dark ones."""

from helpers.cases import pixels, save


def planted(size=96, left=48, top=16, side=32):
    """A dark picture with a little noise and one bright square."""
    picture = pixels(size, size, seed=1) // 8
    picture[top : top + side, left : left + side] = 250
    return picture


def folder(tmp_path, bright=4, dark=4):
    for n in range(bright):
        save(tmp_path / "pics" / f"bright{n}.png", 255 - pixels(64, 64, seed=n) // 4)
    for n in range(dark):
        save(tmp_path / "pics" / f"dark{n}.png", pixels(64, 64, seed=n) // 4)
    return tmp_path / "pics"
