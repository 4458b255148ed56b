package edit

import (
	"reflect"
	"slices"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// Clear makes the edit that clears the member with a name out of [Clearable]. Case, hyphens, dots, underscores and an s at
// the end do not matter; "port" is ExposedPorts.
func Clear(name string) (Edit, error) {
	for _, known := range Clearable() {
		if plain(known) != plain(name) {
			continue
		}
		return Edit{do: func(s *copydata.Settings) error {
			switch {
			case known == "annotations":
				clear(s.Annotations)
			case known == "created-by":
				s.CreatedBy = ""
			case known == "history-comment":
				s.HistoryComment = ""
			case !clearField(s.Image.Config, known):
				clearField(&s.Image, known)
			}
			return nil
		}}, nil
	}
	return Edit{}, invalid("clear", "%s is not the name of a member that can be cleared", kimg.Quote(name))
}

func plain(name string) string {
	letters := strings.Map(func(r rune) rune { // a Replacer, made for each of many comparisons, took a millisecond of every start
		if strings.ContainsRune("-_.", r) {
			return -1
		}
		return r
	}, strings.ToLower(name))
	name = strings.TrimSuffix(letters, "s")
	if name == "port" {
		return "exposedport"
	}
	return name
}

// Clearable lists the members that can be cleared, as the configuration spells them: all but those that make an image what
// it is. Three are not of the configuration: annotations, created-by and history-comment.
func Clearable() []string {
	names := []string{"annotations", "created-by", "history-comment"}
	for _, t := range []reflect.Type{reflect.TypeFor[docker.Config](), reflect.TypeFor[docker.Image]()} {
		for f := range t.Fields() {
			if name := jsonName(f); !slices.Contains([]string{"architecture", "os", "config", "rootfs"}, name) {
				names = append(names, name)
			}
		}
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(plain(a), plain(b)) })
	return names
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// clearField sets the field that has a name in JSON to nothing, and tells whether there is one. s points to a struct.
func clearField(s any, name string) bool {
	v := reflect.ValueOf(s).Elem()
	for f := range v.Type().Fields() {
		if jsonName(f) == name {
			v.FieldByIndex(f.Index).SetZero()
			return true
		}
	}
	return false
}
