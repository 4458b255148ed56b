package main

import (
	"cmp"
	"context"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/copydata/edit"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store"
)

// configOptions are the flags of kimg config.
type configOptions struct {
	*app
	flags *pflag.FlagSet

	image, file    string
	clear, changes []string
	addHistory     bool
	rebuild        bool                 // --clear state
	values         map[string]*[]string // of the flags that edit.Settings lists

	edits edit.List
}

func newConfig(a *app) *cobra.Command {
	o := &configOptions{app: a, values: map[string]*[]string{}}
	cmd := &cobra.Command{
		Use:   "config [flags] CTR | config --image REF [flags] NAME",
		Short: "Change what the image of a container, or an image, says about itself",
		Long: `Change what the image of a container will say about itself, or with --image make an image NAME that differs from another one
in that alone. What no flag names stays as it is. An empty value removes what a flag that is given once sets.

A command is a JSON list of strings; other text is split into words for --cmd and --shell, and handed to /bin/sh -c for
--entrypoint. Of flags that may repeat, NAME- removes one and - removes all. In --env, $NAME is what the image has in a
variable, $$ a dollar, and NAME alone takes the value from the environment of kimg.

--config-file merges a JSON object of the members of the configuration: maps and variables by name, null clears a member.
--change takes CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, MAINTAINER, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and
WORKDIR, as docker commit does: ENTRYPOINT removes a command that no instruction before it has set. The order is
--config-file, --clear, --change, then the other flags.

--clear takes ` + folded(edit.Clearable()) + `.
--clear state gives the container all the settings of its image again, before any other flag, also when its state file is
damaged or gone; a damaged one is kept beside it.`,
		Example: `  kimg config --cmd '["/app", "-v"]' --env MODE=fast --port 8080 CTR
  kimg config --unsetenv MODE --label version=2 --workingdir /srv --clear healthcheck CTR
  kimg config --change 'ENTRYPOINT ["/app"]' --change 'USER www' CTR
  kimg config --image app:1 --label stage=test app:test`,
		Args: args(1, 1),
	}
	cmd.RunE = a.withStore(anyNamespace, o.check, o.run)
	f := cmd.Flags()
	o.flags = f
	for _, s := range edit.Settings() {
		o.values[s.Name] = f.StringArrayP(s.Name, s.Short, nil, s.Help)
	}
	f.StringVar(&o.file, "config-file", "", "merge a JSON `file` into the configuration")
	f.StringArrayVar(&o.clear, "clear", nil, "clear the `member` of the configuration; may repeat")
	changeFlag(f, &o.changes)
	f.BoolVar(&o.addHistory, "add-history", false, "add a history entry for each change that a Dockerfile instruction can make")
	f.StringVar(&o.image, "image", "", "edit the image `ref` instead of a container")
	return cmd
}

// folded lists words in lines that fit a help text.
func folded(words []string) string {
	var b strings.Builder
	width := len("--clear takes ")
	for i, word := range words {
		if width += len(word) + 2; width > 120 {
			b.WriteString("\n")
			width = len(word)
		} else if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(word)
		if i < len(words)-1 {
			b.WriteString(",")
		}
	}
	return b.String()
}

// changeFlag is the flag that several commands share.
func changeFlag(f *pflag.FlagSet, changes *[]string) {
	f.StringArrayVarP(changes, "change", "c", nil, "carry out a Dockerfile `instruction` that changes the configuration; may repeat")
}

// check parses every flag that was given into edits.
func (o *configOptions) check([]string) error {
	if o.file != "" {
		data, err := safeopen.ReadFile(o.file, strict.MaxDocument)
		if err != nil {
			return err
		}
		e, err := edit.File(data)
		if err != nil {
			return kimg.Wrap(o.file, err)
		}
		o.edits = append(o.edits, e)
	}
	for _, name := range o.clear {
		if name == "state" && o.image == "" {
			o.rebuild = true
			continue
		}
		e, err := edit.Clear(name)
		if err != nil {
			return usagef("--clear", "%w", err)
		}
		o.edits = append(o.edits, e)
	}
	changes, err := instructions(o.changes)
	if err != nil {
		return err
	}
	o.edits = append(o.edits, changes...)
	for _, s := range edit.Settings() {
		if !o.flags.Changed(s.Name) || o.image != "" && s.Name == "created-by" {
			continue
		}
		if o.image != "" && s.Name == "history-comment" {
			return usagef("--history-comment", "an image is not committed")
		}
		e, err := setting(s, *o.values[s.Name])
		if err != nil {
			return err
		}
		o.edits = append(o.edits, e)
	}
	if len(o.edits) == 0 && !o.rebuild {
		return usagef("config", "nothing to change")
	}
	return o.history()
}

// setting makes the edit of one flag.
func setting(s edit.Setting, values []string) (edit.Edit, error) {
	if s.Name == "env" {
		for i, name := range values {
			if strings.ContainsAny(name, "=") || strings.HasSuffix(name, "-") {
				continue
			}
			value, ok := os.LookupEnv(name)
			if !ok {
				return edit.Edit{}, usagef("--env", "%s is not NAME=VALUE, and not in the environment", kimg.Quote(name))
			}
			values[i] = name + "=" + strings.ReplaceAll(value, "$", "$$")
		}
	}
	e, err := s.Edit(values...)
	if err == nil {
		err = edit.List{e}.Check()
	}
	if err != nil {
		return e, usagef("--"+s.Name, "%w", err)
	}
	return e, nil
}

// settings makes the edit of a flag of another command.
func settings(name string, values []string) (edit.List, error) {
	if len(values) == 0 {
		return nil, nil
	}
	e, err := edit.Set(name, values...)
	if err == nil {
		err = edit.List{e}.Check()
	}
	if err != nil {
		return nil, usagef("--"+name, "%w", err)
	}
	return edit.List{e}, nil
}

// instructions makes the edits of the flag --change.
func instructions(changes []string) (edit.List, error) {
	edits, err := edit.Instructions(changes...)
	if err == nil {
		err = edits.Check()
	}
	if err != nil {
		return nil, usagef("--change", "%w", err)
	}
	return edits, nil
}

// history adds the edit that records the others.
func (o *configOptions) history() error {
	createdBy := ""
	if o.image != "" && o.flags.Changed("created-by") {
		if !o.addHistory {
			return usagef("--created-by", "an edited image gets a history entry with --add-history only")
		}
		createdBy = (*o.values["created-by"])[0]
	}
	if !o.addHistory {
		return nil
	}
	created, err := sourceDateEpoch()
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	o.edits = append(o.edits, o.edits.Record(*cmp.Or(created, &now), createdBy))
	return nil
}

func (o *configOptions) run(ctx context.Context, st *store.Store, args []string) error {
	if o.image != "" {
		return o.editImage(ctx, st, args[0])
	}
	c, err := st.Container(ctx, args[0])
	if err != nil {
		return err
	}
	settings, err := o.change(ctx, st, c)
	if err != nil {
		return err
	}
	if o.app.flags.json {
		return o.printJSON(containerJSON{ID: c.ID, Name: c.Name, Image: settings.ImageName(), ImageID: c.ImageID})
	}
	return nil
}

// change edits and saves the container's state.
func (o *configOptions) change(ctx context.Context, st *store.Store, c *store.Container) (*copydata.CopyData, error) {
	if o.rebuild {
		return st.RebuildState(ctx, c.ID, o.edits.Apply)
	}
	settings, err := o.state(ctx, st, c)
	if err != nil {
		return nil, err
	}
	if err := settings.Update(o.edits.Apply); err != nil {
		return nil, err
	}
	if err := settings.Save(st.Dir()); err != nil {
		return nil, err
	}
	if c.Foreign {
		o.log.WarnContext(ctx, "the tool that made the container will not know; kimg goes by its own settings from now on", "tool", c.Tool)
	}
	return settings, nil
}

func (o *configOptions) editImage(ctx context.Context, st *store.Store, name string) error {
	if strings.Contains(name, "://") {
		return kimg.Errorf(kimg.ErrUnsupported, name, "the edited image goes into the store")
	}
	img, err := image(ctx, st, o.image)
	if err != nil {
		return err
	}
	made, err := commit.Edit(ctx, st, img, o.edits.Apply, commit.Options{Names: []string{strings.TrimPrefix(name, "containers-storage:")}})
	if err != nil {
		return err
	}
	o.tell(ctx, made)
	if o.app.flags.json {
		return o.printJSON(newCommitJSON(made))
	}
	o.println(made.ImageID)
	return nil
}
