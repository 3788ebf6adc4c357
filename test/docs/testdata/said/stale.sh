mirror
larder pull fading.example/acme/app:v1
larder pull fading.example/acme/app:v1
cat mirror.log
curl -sS http://127.0.0.1:8001/metrics | grep -E '^larder_(stale|breaker)'
