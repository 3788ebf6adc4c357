mirror
larder pull corrupt.example/acme/app:v1 || true
cat mirror.log
curl -sS http://127.0.0.1:8001/metrics | grep mismatch
