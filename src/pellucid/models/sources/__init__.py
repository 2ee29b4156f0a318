"""Where models come from: `load` by name, `wrap` for any of one's own. One file a source, entered by `@source`."""

from importlib import import_module
from pkgutil import iter_modules

from pellucid.models.sources.entry import is_entry, model_of
from pellucid.models.sources.loading import DEFAULT, load, per_frame, per_slice, wrap
from pellucid.models.sources.registry import SOURCES, Built, Source, source

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")  # where it enters its source
SOURCES.extend("pellucid.sources")
SOURCES.order(lambda entry: entry.scheme)

__all__ = [
    "DEFAULT",
    "SOURCES",
    "Built",
    "Source",
    "is_entry",
    "load",
    "model_of",
    "per_frame",
    "per_slice",
    "source",
    "wrap",
]
