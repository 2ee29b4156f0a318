"""How things are drawn on paper, in inches: sheets, tiles, bars, branches, portraits, colours, overlays."""
