# The service for one machine: docker build -t pnp-ovss . && docker run -p 7860:7860 -e PNP_OVSS_TOKEN=... pnp-ovss
# On a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126, and run with --gpus all.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

RUN useradd --create-home --uid 1000 pnp
RUN pip install --index-url ${TORCH_INDEX} "torch>=2.6"
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN pip install "/build[serve]" && rm -r /build

USER pnp
WORKDIR /home/pnp
RUN mkdir -p /home/pnp/.cache
VOLUME /home/pnp/.cache
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["pnp-ovss"]
CMD ["serve", "--host", "0.0.0.0", "--port", "7860"]
