mirror
larder pull docker.io/library/alpine:3.20
curl -sS http://127.0.0.1:8001/metrics | grep -E '^larder_(cache|fs)'
