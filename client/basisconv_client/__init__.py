"""The Python client of BasisConv: hand over a trained network, get back a smaller one.

from basisconv_client import Client

with Client("http://127.0.0.1:8000", api_key) as client:
    job = client.compress("net.onnx", "images.npz", macs=0.5)
    for artifact in client.artifacts(job.id):
        client.download(artifact, "smaller/")
"""

from basisconv_client.client import Client
from basisconv_client.errors import (
    AccessDenied,
    BasisConvError,
    DownloadDamaged,
    FileChanged,
    JobFailed,
    NotFound,
    NotSignedIn,
    PlanFailed,
    Rejected,
    RequestRefused,
    ServerTooOld,
    ServiceError,
    ServiceUnavailable,
    TooManyRequests,
    Unreachable,
    UnsafeFile,
)
from basisconv_client.resources import (
    Artifact,
    Batch,
    Dataset,
    Event,
    Figures,
    Job,
    Layer,
    Model,
    Plan,
    Result,
)
from basisconv_client.transport import Patience

__all__ = [
    "AccessDenied",
    "Artifact",
    "BasisConvError",
    "Batch",
    "Client",
    "Dataset",
    "DownloadDamaged",
    "Event",
    "Figures",
    "FileChanged",
    "Job",
    "JobFailed",
    "Layer",
    "Model",
    "NotFound",
    "NotSignedIn",
    "Patience",
    "Plan",
    "PlanFailed",
    "Rejected",
    "RequestRefused",
    "Result",
    "ServerTooOld",
    "ServiceError",
    "ServiceUnavailable",
    "TooManyRequests",
    "Unreachable",
    "UnsafeFile",
]
