# A Celery worker with torch.
#   GPU:  docker build -f docker/worker.Dockerfile -t basisconv-worker --build-arg ONNXRUNTIME_GPU=1.31.1 .
#   CPU:  docker build -f docker/worker.Dockerfile -t basisconv-worker-cpu --build-arg BASE=ubuntu:24.04 \
#             --build-arg TORCH_INDEX_URL=<PyTorch's package index for CPU builds> .
# torch's ordinary wheel carries CUDA's libraries, so the small `base` image is enough. Left empty,
# TORCH_INDEX_URL means pip's own index: the CPU variant then works too, but is some gigabytes larger.
# ONNXRUNTIME_GPU: the version of onnxruntime-gpu in place of onnxruntime, for networks timed on the GPU; 1.31.1
# is for CUDA 13 and cuDNN 9, which torch brings along, and for x86-64. Left empty, they can be timed on the CPU only.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS build
ARG TORCH_INDEX_URL=""
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
# torch first: the large layer, which changes only with its pin
RUN /opt/venv/bin/pip install --no-cache-dir -c constraints.txt \
    ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
COPY app app
COPY worker worker
COPY basisconv basisconv
COPY client client
RUN /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ./client '.[worker]'
# Both packages bring the same module, so one has to go first.
ARG ONNXRUNTIME_GPU=""
RUN if [ -n "$ONNXRUNTIME_GPU" ]; then \
        /opt/venv/bin/pip uninstall -y onnxruntime \
        && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt "onnxruntime-gpu==$ONNXRUNTIME_GPU"; \
    fi

# hadolint ignore=DL3006
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /data basisconv \
    && install -d -o basisconv -g basisconv -m 0700 /data /data/objects /data/var
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv/basisconv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 BASISCONV_VAR_DIR=/data/var
USER 10001
# Only SIGTERM: under the pool `solo` SIGQUIT loses the running task's message.
STOPSIGNAL SIGTERM
# A worker that works answers nobody, so this asks whether it could work: database and broker answer.
HEALTHCHECK --interval=30s --timeout=15s --start-period=20s CMD ["basisconv", "check"]
CMD ["python", "-m", "celery", "-q", "-A", "worker.celery", "worker", "-P", "solo", "-Q", "jobs", \
     "--prefetch-multiplier", "1", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
