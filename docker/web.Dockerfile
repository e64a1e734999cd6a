# The web process, and the one-shot migration: no torch, no compiler, no root.
#   docker build -f docker/web.Dockerfile -t basisconv-web .
FROM node:24-bookworm-slim AS browser-packages
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts

FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY app app
COPY worker worker
COPY basisconv basisconv
COPY client client
COPY scripts/vendor_js.py scripts/vendor_js.py
COPY --from=browser-packages /src/node_modules node_modules
# The copied browser files become part of the installed package. worker and basisconv come along as a few small
# files that nothing here imports; their dependencies do not.
RUN python scripts/vendor_js.py \
    && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ./client .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /data basisconv \
    && install -d -o basisconv -g basisconv -m 0700 /data /data/objects /data/var
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv/basisconv
COPY alembic alembic
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 BASISCONV_VAR_DIR=/data/var
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["uvicorn", "app.asgi:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", \
     "--timeout-graceful-shutdown", "10"]
