"""SAM's graphs of a bundle, opened on onnxruntime's CPU."""

from edgeseg.backends import get_backend
from edgeseg.chains import Chains
from edgeseg.pipelines import get_pipeline
from edgeseg.segments.sam import SamRunner
from edgeseg.selection import Request, choose


def runner(bundle, threads=None):
    pipeline = get_pipeline(bundle.manifest)
    plan = choose(bundle, pipeline.graphs, Request(get_backend("onnxruntime", threads)))
    return SamRunner(Chains(bundle, plan, pipeline.graphs).chain(plan.canvases[0]), bundle.manifest)
