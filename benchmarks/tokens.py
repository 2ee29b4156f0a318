"""Vision transformers that are given the kept patches only: dropped tokens beside covered ones, mask for mask."""

from __future__ import annotations

from benchmarks.report import Row, Section, at_least
from benchmarks.rivals import Setting
from benchmarks.timing import paired
from pellucid.engine.masks import grid_labels
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method

_TITLE = "Dropped tokens on ViT-B/16"
_CELLS = (7, 7)  # four patches each


def dropping(masks: int, repeats: int, device: str) -> Section:
    """RISE, LIME and KernelSHAP with `baseline="dropped"` beside the zero baseline."""
    s = Setting.make("ViT-B/16", 1, device, probe=False)
    labels = grid_labels(tuple(s.inputs.shape[2:]), _CELLS)
    wanted = {
        "rise": {"samples": masks},
        "lime": {"samples": masks, "segments": labels},
        "kernel-shap": {"samples": masks, "segments": labels},
    }
    calls, rows = {}, []
    for name, settings in wanted.items():
        for baseline in ("zero", "dropped"):
            method = get_method(name, baseline=baseline, **settings)
            calls[f"{name} {baseline}"] = lambda m=method: m.explain(s.module, s.inputs, [0])
    try:
        calls["rise dropped"]()
    except MethodError as error:
        return Section(_TITLE, "", skipped=f"dropped tokens are no baseline here ({error})")
    found = paired(calls, repeats, warmup=1)
    for name in wanted:
        zero, dropped = f"{name} zero", f"{name} dropped"
        rows.append(
            Row(
                f"{name}, covered : dropped",
                found.ratio(zero, dropped),
                limit=at_least(1.7),
                cpu=found.ratio(zero, dropped, "cpu"),
                note=f"{found.seconds(dropped, 'cpu').median:.2g} s of the processor with tokens dropped",
            )
        )
    about = (
        f"ViT-B/16 with random weights, the same {masks} masks twice: "
        "hidden patches covered with zeros, and hidden patches left out of the transformer's input. Masks "
        "keep half of the patches on average."
    )
    return Section(_TITLE, about, rows)
