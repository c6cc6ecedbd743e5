"""fracnet's own radiograph-like images: drawn from a seed, with nothing to download.

`render` draws one image from a `Spec`; `write_upper_limb` and `write_mura` write a whole data set.

From inside out: `space` (camera, frames), `tubes` and `solids` (parts), `body` (bones, patient),
`arm`, `hand`, `girdle` (anatomy in mm), `regions` (poses), `layers` (paths), `framing`, `hardware`,
`display` (attenuation to grey levels), `fracture` and `injury`, `scene` (one image); `planning`,
`workers` and `once` (a data set, in parallel, all or nothing), `upper_limb` and `mura` (its layout
on disk).
"""
