"""Features: what a detector looks at, by name. Nothing of it is fitted."""

from sparse_ad.features.pyramid import Network, Pixels

FEATURES = {  # name in the section `features` of a config -> its options
    "pixels": Pixels,
    "network": Network,
}
