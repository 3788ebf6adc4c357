mirror
ask private.example acme/app/manifests/v1
ask private.example acme/app/manifests/v1 -u acme:wrong
ask private.example acme/app/manifests/v1 -u acme:secret -o /dev/null
ask private.example acme/app/manifests/v1
cat mirror.log
curl -sS http://127.0.0.1:8001/metrics | grep private_denied
