cat >larder.yaml <<'END'
image_validation: {default: Deny, allow: [docker.io/library/]}
webhook: {certificate: files}
END
larder central --serve=webhook --config larder.yaml --tls-cert /fixtures/tls.crt --tls-key /fixtures/tls.key >webhook.log 2>&1 &
answers https://localhost:8443/healthz
cat >review.json <<'END'
{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"operation":"CREATE","namespace":"team-a","name":"x","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"team-a"},"spec":{"containers":[{"name":"x","image":"quay.io/acme/app:v1"}]}}}}
END
curl -sS -H 'Content-Type: application/json' --data-binary @review.json https://localhost:8443/validate-image
echo
cat webhook.log
