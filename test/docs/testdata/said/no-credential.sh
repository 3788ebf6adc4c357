cat >larder.yaml <<'END'
registry_proxies:
  registries:
    - {host: private.example, username: acme, password_file: /run/secret}
END
larder config check larder.yaml || true
echo right >/run/secret
mirror --config larder.yaml
rm /run/secret
ask private.example acme/app/manifests/v1
cat mirror.log
