# The exporter, `hf-eco2ai serve`, and `hf-eco2ai stack render`, which sets up the other servers of docker-compose.yml.
#
#   docker build -t hf-eco2ai .                       the exporter
#   docker build -t hf-eco2ai-demo --target demo .    with PyTorch and a small training, for `--profile demo`

FROM python:3.13-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/hf-eco2ai
RUN /opt/hf-eco2ai/bin/pip install --no-cache-dir "$(echo /wheels/*.whl)[serve,stack]"

FROM python:3.13-slim AS base
COPY --from=build /opt/hf-eco2ai /opt/hf-eco2ai
# Any user will do (docker run --user), also one without a home; and nothing is written beside the modules.
ENV PATH=/opt/hf-eco2ai/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# PyPI's PyTorch for x86_64 brings CUDA's libraries along, several GB that the demo does not need. pytorch.org names an index of builds
# for the CPU: --build-arg PIP_EXTRA_INDEX_URL=...
FROM base AS demo
ARG PIP_EXTRA_INDEX_URL
RUN /opt/hf-eco2ai/bin/pip install --no-cache-dir "hf-eco2ai[trainer]"
COPY --chmod=0644 examples/train_tiny_gpt2.py /demo/
USER 1000:1000
CMD ["python", "/demo/train_tiny_gpt2.py", "--simulated-gpus", "8", "--output", "/tmp/demo"]

# Last, so that it is what `docker build` makes when it is not told.
FROM base AS exporter
USER 1000:1000
EXPOSE 9091
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 9091, timeout=5); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["hf-eco2ai"]
CMD ["serve", "--host", "0.0.0.0", "--port", "9091", "--runs-dir", "/runs", "--all-hosts"]
