cat >larder.yaml <<'END'
image_validation:
  default: Deny
  allow: [docker.io/library/]
END
mirror --config larder.yaml
ask quay.io acme/app/manifests/v1
cat mirror.log
larder policy test --config larder.yaml quay.io/acme/app:v1 || true
