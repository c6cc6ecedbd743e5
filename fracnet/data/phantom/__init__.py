"""fracnet's own radiograph-like images: drawn from a seed, with nothing to download.

`render` draws one image from a `Spec`; `write_upper_limb` writes a whole data set.

From inside out: `space` (camera, frames), `tubes` and `solids` (parts), `body` (bones, patient),
`arm`, `hand`, `girdle` (anatomy in mm), `regions` (poses), `layers` (paths), `framing`, `hardware`,
`display` (attenuation to grey levels), `fracture` and `injury`, `scene` (one image); `workers` and
`once` (a data set, in parallel, all or nothing), `upper_limb` (its layout on disk).
"""

from fracnet.data.phantom.scene import DILATION, Rendered, render
from fracnet.data.phantom.spec import REGIONS, VERSION, Spec
from fracnet.data.phantom.upper_limb import write_upper_limb

__all__ = ["DILATION", "REGIONS", "VERSION", "Rendered", "Spec", "render", "write_upper_limb"]
