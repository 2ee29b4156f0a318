"""The viewer, written once: plain ES modules and a style (`*.js`, `viewer.css`), what puts them into a page (`assets`),
and an input with its maps as the data that they show (`view`). The report, the notebook and the studio use it."""
