module github.com/larder-registry/larder/test/chart

go 1.26.6

require (
	github.com/larder-registry/larder v0.0.0
	go.yaml.in/yaml/v3 v3.0.6
	sigs.k8s.io/yaml v1.6.0
)

require (
	github.com/kr/text v0.2.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	go.yaml.in/yaml/v2 v2.4.2 // indirect
)

replace github.com/larder-registry/larder => ../..
