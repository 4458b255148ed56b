package edit

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// split splits the arguments of an instruction at blanks outside quotes. Quotes and backslashes stay, for [expand].
func split(text string) []string {
	var out []string
	start, quote, escaped := -1, rune(0), false
	for i, r := range text {
		switch {
		case start < 0 && unicode.IsSpace(r):
			continue
		case start < 0:
			start = i
		}
		switch {
		case escaped:
			escaped = false
		case r == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case unicode.IsSpace(r):
			out, start = append(out, text[start:i]), -1
		}
	}
	if start >= 0 {
		out = append(out, text[start:])
	}
	return out
}

// expander takes the quotes off a word and puts in variables, as builds of Dockerfiles do: "…" keeps all but $ and
// backslashes before ", $ and \; '…' keeps all; a backslash elsewhere keeps the next character; $NAME, ${NAME}, ${NAME-word},
// ${NAME+word}, with a colon an empty variable counts as none. A variable that is not there is nothing.
type expander struct {
	rest string
	env  func(name string) (value string, ok bool)
}

func expand(word string, env func(string) (string, bool)) (string, error) {
	x := expander{word, env}
	return x.until(0)
}

// next takes one character; 0 at the end.
func (x *expander) next() rune {
	r, n := utf8.DecodeRuneInString(x.rest)
	if n == 0 {
		return 0
	}
	x.rest = x.rest[n:]
	return r
}

// until expands up to a character that stands outside quotes, which is taken; 0 is the end of the word.
func (x *expander) until(stop rune) (string, error) {
	var b strings.Builder
	for x.rest != "" {
		var piece string
		var err error
		switch r := x.next(); r {
		case stop:
			return b.String(), nil
		case '\'':
			text, rest, ok := strings.Cut(x.rest, "'")
			if !ok {
				return "", errors.New("a ' without its end")
			}
			piece, x.rest = text, rest
		case '"':
			piece, err = x.quoted()
		case '$':
			piece, err = x.variable()
		case '\\':
			if x.rest != "" {
				piece = string(x.next())
			}
		default:
			piece = string(r)
		}
		if err != nil {
			return "", err
		}
		b.WriteString(piece)
	}
	if stop != 0 {
		return "", errors.New("a ${ without its end")
	}
	return b.String(), nil
}

func (x *expander) quoted() (string, error) {
	var b strings.Builder
	for x.rest != "" {
		switch r := x.next(); r {
		case '"':
			return b.String(), nil
		case '$':
			value, err := x.variable()
			if err != nil {
				return "", err
			}
			b.WriteString(value)
		case '\\':
			if strings.IndexAny(x.rest, `"$\`) == 0 {
				r = x.next()
			}
			fallthrough
		default:
			b.WriteRune(r)
		}
	}
	return "", errors.New("a \" without its end")
}

// variable is called behind a dollar.
func (x *expander) variable() (string, error) {
	if !strings.HasPrefix(x.rest, "{") {
		name := x.name()
		if name == "" {
			return "$", nil
		}
		value, _ := x.env(name)
		return value, nil
	}
	x.next()
	name := x.name()
	if name == "" {
		return "", errors.New("a ${ without a name")
	}
	value, set := x.env(name)
	operator := x.next()
	if operator == ':' {
		set, operator = set && value != "", x.next()
	} else if operator == '}' {
		return value, nil
	}
	if operator != '-' && operator != '+' {
		return "", errors.New("a ${ that is not ${NAME}, ${NAME:-word} or ${NAME:+word}")
	}
	other, err := x.until('}')
	switch {
	case err != nil:
		return "", err
	case set == (operator == '+'):
		return other, nil
	case operator == '+':
		return "", nil
	}
	return value, nil
}

func (x *expander) name() string {
	name := x.rest
	if i := strings.IndexFunc(x.rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }); i >= 0 {
		name = x.rest[:i]
	}
	x.rest = x.rest[len(name):]
	return name
}
