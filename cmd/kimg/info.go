package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containers/image/v5/signature"
	"github.com/containers/storage/pkg/unshare"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/userns"
)

func newInfo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "info",
		Short:   "Print facts about the store, its driver, the namespace and the policy",
		Example: "  kimg info --json",
		Args:    args(0, 0),
		RunE:    a.withStore(anyNamespace, nil, a.runInfo),
	}
}

// infoJSON is what kimg info prints.
type infoJSON struct {
	Version    string            `json:"version"`
	Root       string            `json:"root"`
	RunRoot    string            `json:"runRoot"`
	ImageStore string            `json:"imageStore,omitempty"` // where images live when that is not the root
	Driver     string            `json:"driver"`
	Options    []string          `json:"driverOptions"`
	Status     map[string]string `json:"driverStatus"`
	Additional []string          `json:"additionalStores"` // read-only
	Transient  bool              `json:"transient"`
	CanCommit  bool              `json:"canCommit"`
	Why        string            `json:"why,omitempty"` // it cannot
	Rootless   bool              `json:"rootless"`
	Kept       bool              `json:"namespaceKept"` // mounts outlive this command
	Images     int               `json:"images"`
	Containers int               `json:"containers"`
	Policy     policyJSON        `json:"policy"`
}

// policyJSON is the signature policy in force.
type policyJSON struct {
	File    string `json:"file"`    // empty: there is none, and the built-in one is in force
	Default string `json:"default"` // what it says about everything it does not name
}

func (a *app) runInfo(ctx context.Context, st *store.Store, _ []string) error {
	i := st.Info()
	images, err := st.Images(ctx)
	if err != nil {
		return err
	}
	containers, err := st.Containers(ctx)
	if err != nil {
		return err
	}
	policy, err := a.policy()
	if err != nil {
		return err
	}
	v := infoJSON{
		Version: version, Root: i.Root, RunRoot: i.RunRoot, ImageStore: i.ImageStore, Driver: i.Driver,
		Options: orEmpty(i.DriverOptions), Status: i.Status, Additional: orEmpty(i.Additional), Transient: i.Transient,
		CanCommit: i.CanCommit, Why: i.Why, Rootless: unshare.IsRootless(), Kept: userns.Kept(),
		Images: len(images), Containers: len(containers), Policy: policy,
	}
	if a.flags.json {
		return a.printJSON(v)
	}
	for _, line := range [][2]string{
		{"version", v.Version}, {"root", v.Root}, {"run root", v.RunRoot}, {"image store", v.ImageStore}, {"driver", v.Driver},
		{"driver options", strings.Join(v.Options, " ")}, {"additional stores", strings.Join(v.Additional, " ")},
		{"can commit", boolText(v.CanCommit) + reason(v.Why)}, {"rootless", boolText(v.Rootless)}, {"images", strconv.Itoa(v.Images)},
		{"containers", strconv.Itoa(v.Containers)}, {"signature policy", orNone(v.Policy.File, "built in") + ", default " + v.Policy.Default},
	} {
		if line[1] != "" {
			a.println(line[0] + ": " + line[1])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.Status)) {
		a.println("driver status: " + key + ": " + v.Status[key])
	}
	return nil
}

func reason(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// policy finds the signature policy that is in force: the flag's, the user's, the system's, else the built-in one, which
// accepts everything.
func (a *app) policy() (policyJSON, error) {
	file := convertimage.PolicyFile(a.systemContext())
	if file == "" {
		return policyJSON{Default: "accept"}, nil
	}
	p, err := signature.NewPolicyFromFile(file)
	if err != nil {
		if class := kimg.ClassOf(err); class != kimg.ErrInternal {
			return policyJSON{}, kimg.Wrap(file, err)
		}
		return policyJSON{}, kimg.Errorf(kimg.ErrInvalid, file, "%w", err)
	}
	return policyJSON{File: file, Default: policyWord(p.Default)}, nil
}

// policyWord says in one word what a list of requirements asks for.
func policyWord(requirements signature.PolicyRequirements) string {
	data, err := json.Marshal(requirements)
	var list []struct {
		Type string `json:"type"`
	}
	if err != nil || json.Unmarshal(data, &list) != nil || len(list) == 0 {
		return "unknown"
	}
	switch list[0].Type {
	case "insecureAcceptAnything":
		return "accept"
	case "reject":
		return "reject"
	}
	return list[0].Type
}
