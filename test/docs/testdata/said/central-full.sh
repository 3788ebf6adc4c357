echo secret >password
echo 'central: {min_free: 100%}' >larder.yaml
larder config check larder.yaml || true
echo 'central: {min_free: 1TiB}' >larder.yaml
larder central --config larder.yaml --user admin --password-file password --plain-http --data-dir /var/lib/registry >central.log 2>&1 &
answers http://127.0.0.1:5000/healthz
curl -sS -u admin:secret -X POST 'http://127.0.0.1:5000/v2/acme/app/blobs/uploads/' -D -
echo
echo hello >blob
curl -sS -u admin:secret -X POST --data-binary @blob -H 'Content-Type: application/octet-stream' "http://127.0.0.1:5000/v2/acme/app/blobs/uploads/?digest=sha256:$(sha256sum blob | cut -d' ' -f1)" -D -
echo
curl -sS http://127.0.0.1:8001/readyz
cat central.log
