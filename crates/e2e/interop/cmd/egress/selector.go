package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/server/egressselector"
)

// loadDialer reads, validates and builds in the order in which kube-apiserver starts, and returns
// its dialer for the egress type.
func loadDialer(path string, set substitutions, egress string) (net.DialFunc, error) {
	path, remove, err := substitute(path, set)
	if err != nil {
		return nil, err
	}
	defer remove()
	config, err := egressselector.ReadEgressSelectorConfiguration(path)
	if err != nil {
		return nil, fmt.Errorf("failed to read egress selector config: %w", err)
	}
	if errs := egressselector.ValidateEgressSelectorConfiguration(config); len(errs) > 0 {
		return nil, fmt.Errorf("failed to validate egress selector configuration: %w", errs.ToAggregate())
	}
	selector, err := egressselector.NewEgressSelector(config)
	if err != nil {
		return nil, fmt.Errorf("failed to setup egress selector: %w", err)
	}
	if selector == nil {
		return nil, errors.New("the configuration selects no egress")
	}
	egressType, err := parseEgressType(egress)
	if err != nil {
		return nil, err
	}
	dial, err := selector.Lookup(egressType.AsNetworkContext())
	if err != nil {
		return nil, err
	}
	if dial == nil {
		return nil, fmt.Errorf("the configuration has no egress selection %q", egress)
	}
	return dial, nil
}

func parseEgressType(name string) (egressselector.EgressType, error) {
	known := []egressselector.EgressType{
		egressselector.ControlPlane, egressselector.Etcd, egressselector.Cluster,
	}
	for _, egress := range known {
		if egress.String() == name {
			return egress, nil
		}
	}
	return 0, fmt.Errorf("unknown egress type %q", name)
}

// substitute returns the path of a temporary copy with every replacement made. A text that is not
// in the file is an error: the file has changed, and its test with it.
func substitute(path string, set substitutions) (string, func(), error) {
	if path == "" {
		return "", nil, errors.New("-config is required")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	text := string(data)
	for _, pair := range set {
		if !strings.Contains(text, pair[0]) {
			return "", nil, fmt.Errorf("-set: %q does not occur in %s", pair[0], path)
		}
		text = strings.ReplaceAll(text, pair[0], pair[1])
	}
	copied, err := os.CreateTemp("", "egress-selector-*.yaml")
	if err != nil {
		return "", nil, err
	}
	remove := func() { os.Remove(copied.Name()) }
	_, err = copied.WriteString(text)
	if err = errors.Join(err, copied.Close()); err != nil {
		remove()
		return "", nil, err
	}
	return copied.Name(), remove, nil
}
