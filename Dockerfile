# The environment of the pipeline, without its outputs: python -m cgn, DVC, Prefect and MLflow.
#   docker build -t cgn:cpu .
#   docker build -t cgn:cu130 --build-arg TORCH=cu130 .    for NVIDIA GPUs: the driver is the host's (docker run --gpus all)
#   docker run --rm cgn:cpu python -m cgn doctor
# Mount a checkout at /cgn, as compose.yaml does, and its code, its runs/ and its DVC cache are used.
FROM python:3.12-slim-bookworm

# DVC needs Git; scikit-learn and torch need libgomp. Debian keeps one version of a package in a release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /cgn \
    && useradd --create-home --uid 1000 cgn \
    && chmod 1777 /home/cgn \
    && mkdir /cgn \
    && chown cgn:cgn /cgn

ENV HOME=/home/cgn \
    PATH=/opt/venv/bin:$PATH \
    VIRTUAL_ENV=/opt/venv \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    RAY_ENABLE_UV_RUN_RUNTIME_ENV=0

# Dependencies change less often than the code. Packages of torch's own index have no upload date.
ARG TORCH=cpu
COPY pyproject.toml /tmp/project/
WORKDIR /tmp/project
RUN pip install --no-cache-dir "uv>=0.9,<1" \
    && uv venv "$VIRTUAL_ENV" \
    && uv pip install --torch-backend "$TORCH" --exclude-newer-package torch=false --exclude-newer-package torchvision=false \
        --requirements pyproject.toml --group platform --group cluster --group servers

COPY --chown=cgn:cgn . /cgn
WORKDIR /cgn
# An image has no Git history, so DVC needs core.no_scm. DVC's experiments need a mounted checkout.
RUN uv pip install --no-deps --editable . \
    && dvc config --local core.no_scm true \
    && chown -R cgn:cgn .dvc

USER 1000
CMD ["python", "-m", "cgn", "--help"]
