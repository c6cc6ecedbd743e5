"""Generated radiograph-like images: drawn from a seed, nothing to download.

`render` draws one image from a `Spec`; `mura` and `upper_limb` write whole datasets in the layouts
of the real ones, with several processes (`workers`).

Every image is built from parts in mm (`geometry`) that make bones and soft tissue in a pose
(`anatomy`). `xray` projects them and turns paths in tissue into gray levels; `implants` adds metal
and plaster, `fractures` breaks bones and knows the outline of each break.
"""
