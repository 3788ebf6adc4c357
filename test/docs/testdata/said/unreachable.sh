mirror
ask down.example acme/app/manifests/v1
ask nowhere.example acme/app/manifests/v1
ask 127.0.0.1:5000 acme/app/manifests/v1
ask 169.254.169.254 acme/app/manifests/v1
cat mirror.log
