mirror --allow 10.0.0.0/8
ask docker.io library/alpine/manifests/3.20
