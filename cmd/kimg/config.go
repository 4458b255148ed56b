package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// configOptions are the flags of kimg config.
type configOptions struct {
	*app
	flags *pflag.FlagSet

	cmd, entrypoint                          string
	env, label, annotation, port, volume     []string
	unsetEnv, unsetLabel, unsetAnnotation    []string
	user, workdir, stopSignal                string
	author, comment, os, arch, variant, made string
	changes                                  []string

	edits []edit
}

func newConfig(a *app) *cobra.Command {
	o := &configOptions{app: a}
	cmd := &cobra.Command{
		Use:   "config [flags] CTR",
		Short: "Change what the image of a container will say about itself",
		Long: `Change what the image of a container will say about itself. What no flag names stays as it is.

A command is a JSON list of strings; other text is split into words for --cmd and handed to /bin/sh -c for --entrypoint. An
empty text removes the command. Of --env, --label, --annotation, --port and --volume, NAME- removes one and - removes all; they
are carried out in the order of the flags' names here, after the --unset flags.`,
		Example: `  kimg config --cmd '["/app", "-v"]' --env MODE=fast --port 8080 CTR
  kimg config --unsetenv MODE --label version=2 --workingdir /srv CTR
  kimg config --change 'ENTRYPOINT ["/app"]' --change 'USER www' CTR`,
		Args: args(1, 1),
	}
	cmd.RunE = a.withStore(anyNamespace, o.check, o.run)
	f := cmd.Flags()
	o.flags = f
	f.StringVar(&o.cmd, "cmd", "", "default `command`")
	f.StringVar(&o.entrypoint, "entrypoint", "", "`command` that the default command is given to")
	f.StringArrayVarP(&o.env, "env", "e", nil, "environment variable `name=value`; may repeat")
	f.StringArrayVar(&o.unsetEnv, "unsetenv", nil, "remove the environment variable `name`; may repeat")
	f.StringArrayVarP(&o.label, "label", "l", nil, "label `name=value`; may repeat")
	f.StringArrayVar(&o.unsetLabel, "unsetlabel", nil, "remove the label `name`; may repeat")
	f.StringArrayVarP(&o.annotation, "annotation", "a", nil, "annotation `name=value` of the manifest; may repeat")
	f.StringArrayVar(&o.unsetAnnotation, "unsetannotation", nil, "remove the annotation `name`; may repeat")
	f.StringArrayVarP(&o.port, "port", "p", nil, "`port[/protocol]` that the image listens on; may repeat")
	f.StringArrayVarP(&o.volume, "volume", "v", nil, "`path` that a volume is meant for; may repeat")
	f.StringVarP(&o.user, "user", "u", "", "`user[:group]` that the command runs as")
	f.StringVar(&o.workdir, "workingdir", "", "working `directory` of the command; a relative one is below the former")
	f.StringVar(&o.stopSignal, "stop-signal", "", "`signal` that asks the command to stop")
	f.StringVar(&o.author, "author", "", "`name` of the image's author")
	f.StringVar(&o.comment, "comment", "", "`text` about the image")
	f.StringVar(&o.os, "os", "", "operating `system`, as Go names it")
	f.StringVar(&o.arch, "arch", "", "processor `architecture`, as Go names it")
	f.StringVar(&o.variant, "variant", "", "`variant` of the architecture")
	f.StringVar(&o.made, "created-by", "", "`text` for the history entry of the next commit")
	f.StringArrayVarP(&o.changes, "change", "c", nil, "carry out a Dockerfile `instruction` that changes the configuration; may repeat")
	return cmd
}

// check parses every flag that was given into edits.
func (o *configOptions) check([]string) error {
	for _, parse := range []func() ([]edit, error){o.texts, o.commands, o.removals, o.lists, func() ([]edit, error) { return instructions(o.changes) }} {
		edits, err := parse()
		if err != nil {
			return err
		}
		o.edits = append(o.edits, edits...)
	}
	if len(o.edits) == 0 {
		return usagef("config", "nothing to change")
	}
	return nil
}

// texts makes the edits of the flags that set one text. A flag that was given sets it, also to nothing.
func (o *configOptions) texts() ([]edit, error) {
	fields := []struct {
		flag, value string
		field       func(*copydata.Settings) *string
	}{
		{"user", o.user, func(s *copydata.Settings) *string { return &config(s).User }},
		{"stop-signal", o.stopSignal, func(s *copydata.Settings) *string { return &config(s).StopSignal }},
		{"author", o.author, func(s *copydata.Settings) *string { return &s.Image.Author }},
		{"comment", o.comment, func(s *copydata.Settings) *string { return &s.Image.Comment }},
		{"os", o.os, func(s *copydata.Settings) *string { return &s.Image.OS }},
		{"arch", o.arch, func(s *copydata.Settings) *string { return &s.Image.Architecture }},
		{"variant", o.variant, func(s *copydata.Settings) *string { return &s.Image.Variant }},
		{"created-by", o.made, func(s *copydata.Settings) *string { return &s.CreatedBy }},
	}
	var edits []edit
	for _, f := range fields {
		if o.flags.Changed(f.flag) {
			edits = append(edits, text(f.field, f.value))
		}
	}
	if o.flags.Changed("workingdir") {
		edits = append(edits, workdir(o.workdir))
	}
	return edits, nil
}

func (o *configOptions) commands() ([]edit, error) {
	var edits []edit
	if o.flags.Changed("cmd") {
		cmd, err := command("--cmd", o.cmd, false)
		if err != nil {
			return nil, err
		}
		edits = append(edits, func(s *copydata.Settings) error { config(s).Cmd = cmd; return nil })
	}
	if o.flags.Changed("entrypoint") {
		entrypoint, err := command("--entrypoint", o.entrypoint, true)
		if err != nil {
			return nil, err
		}
		edits = append(edits, func(s *copydata.Settings) error { config(s).Entrypoint = entrypoint; return nil })
	}
	return edits, nil
}

func (o *configOptions) removals() ([]edit, error) {
	var edits []edit
	for _, list := range []struct {
		flag   string
		names  []string
		remove func(name string) edit
	}{
		{"--unsetenv", o.unsetEnv, unsetEnv},
		{"--unsetlabel", o.unsetLabel, func(name string) edit { return unsetPair(labels, name) }},
		{"--unsetannotation", o.unsetAnnotation, func(name string) edit { return unsetPair(annotations, name) }},
	} {
		for _, name := range list.names {
			if name == "" {
				return nil, usagef(list.flag, "an empty name")
			}
			edits = append(edits, list.remove(name))
		}
	}
	return edits, nil
}

func (o *configOptions) lists() ([]edit, error) {
	var all []edit
	for _, parse := range []func() ([]edit, error){
		func() ([]edit, error) { return setPairs("--annotation", annotations, o.annotation) },
		func() ([]edit, error) { return setEnv("--env", o.env) },
		func() ([]edit, error) { return setPairs("--label", labels, o.label) },
		func() ([]edit, error) { return setMembers(ports, o.port, checkPort) },
		func() ([]edit, error) { return setMembers(volumes, o.volume, checkVolume) },
	} {
		edits, err := parse()
		if err != nil {
			return nil, err
		}
		all = append(all, edits...)
	}
	return all, nil
}

func (o *configOptions) run(ctx context.Context, st *store.Store, args []string) error {
	c, err := st.Container(ctx, args[0])
	if err != nil {
		return err
	}
	settings, err := state(st, c)
	if err != nil {
		return err
	}
	if err := settings.Update(apply(o.edits)); err != nil {
		return err
	}
	if err := settings.Save(st.Dir()); err != nil {
		return err
	}
	if o.app.flags.json {
		return o.printJSON(containerJSON{ID: c.ID, Name: c.Name, Image: settings.ImageName(), ImageID: c.ImageID})
	}
	return nil
}
