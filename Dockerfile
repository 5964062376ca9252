# The commands in a container, as a user without rights; docs/platforms.md has the commands.
#   BASE: any image with Python 3.10 or newer; PyTorch that it already has is used.
#   TORCH_INDEX: package index of another build of PyTorch, such as the small one for CPUs only.
#   REQUIREMENTS: which of the files to install.
ARG BASE=python:3.12-slim

FROM ${BASE} AS libraries
ARG TORCH_INDEX=""
ARG REQUIREMENTS=requirements.txt
WORKDIR /build
COPY requirements*.txt ./
# opencv-python needs libGL, which an image without a display lacks
RUN sed -i 's/^opencv-python>/opencv-python-headless>/' requirements.txt \
    && python -m venv --system-site-packages /venv \
    && if [ -n "${TORCH_INDEX}" ]; then \
        /venv/bin/pip install --no-cache-dir --index-url "${TORCH_INDEX}" torch torchvision; \
    fi \
    && /venv/bin/pip install --no-cache-dir -r "${REQUIREMENTS}"

FROM ${BASE}
COPY --from=libraries /venv /venv
COPY . /app
RUN useradd --uid 10001 --no-create-home detector && install -d -o 10001 /work
# /tmp is a home for every user, whatever `docker run --user` says
ENV PATH=/venv/bin:${PATH} PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001
WORKDIR /work
ENTRYPOINT ["python"]
CMD ["/app/train.py", "--help"]
