"""A runtime as arithmetic: channels in whole blocks, a fixed effort per call. For planning without one."""

from dataclasses import dataclass

from torch import Tensor, nn

from basisconv.cost import Site, sites
from basisconv.latency.structure import with_pairs
from basisconv.latency.timer import Times, Variant, Whole
from basisconv.nn import Factorized


@dataclass(frozen=True)
class BlockTimer:
    """A Timer that computes what it would measure: MACs with outputs rounded up to blocks, plus `call_ns`.

    `block`: channels computed together (16 with AVX-512, 8 with AVX2); `macs_per_ns`: of one thread at
    single precision, about 30 on a server core; `call_ns`: the effort of starting a layer; `between_ns`: what
    the runtime does between two layers, which only the time of a whole network shows.
    """

    module: nn.Module
    example: Tensor
    block: int = 16
    macs_per_ns: float = 30.0
    call_ns: float = 2000.0
    between_ns: float = 0.0

    def layers(self, variant: Variant) -> Times:
        times: dict[str, float] = {}
        for path, site in self._sites(variant):
            times[path] = times.get(path, 0.0) + self._ns(site)
        return Times(times, 0.0, self.block)

    def whole(self, variant: Variant) -> Whole:
        return Whole(self._total({}), self._total(variant))

    def _total(self, variant: Variant) -> float:
        return sum(self._ns(site) + self.between_ns for _, site in self._sites(variant))

    def _sites(self, variant: Variant) -> list[tuple[str, Site]]:
        """Every layer that runs, with the path of the layer or pair that it belongs to."""
        made = with_pairs(self.module, variant)
        pairs = {path for path, child in made.named_modules() if isinstance(child, Factorized)}
        found = sites(made, self.example)
        parents = [site.layer.name.rpartition(".")[0] for site in found]
        return [(up if up in pairs else s.layer.name, s) for up, s in zip(parents, found, strict=True)]

    def _ns(self, site: Site) -> float:
        layer = site.layer
        outputs = layer.out_channels // layer.groups
        padded = -(-outputs // self.block) * self.block
        return layer.macs / outputs * padded / self.macs_per_ns + self.call_ns
