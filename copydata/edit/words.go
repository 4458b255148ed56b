package edit

import (
	"encoding/json"
	"strings"

	"github.com/kimg/kimg"
)

// jsonWords reads a JSON list of strings; ok tells whether text is a JSON list. One of other values is an error.
func jsonWords(what, text string) (list []string, ok bool, err error) {
	if !strings.HasPrefix(strings.TrimSpace(text), "[") {
		return nil, false, nil
	}
	var values []any
	if json.Unmarshal([]byte(text), &values) != nil {
		return nil, false, nil
	}
	list = []string{}
	for _, v := range values {
		s, isText := v.(string)
		if !isText {
			return nil, false, invalid(what, "%s is a list of other values than strings", kimg.Quote(text))
		}
		list = append(list, s)
	}
	return list, true, nil
}

// words splits text like a shell: blanks separate, quotes and backslashes join. Nothing is expanded.
func words(what, text string) ([]string, error) {
	var out []string
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, r := range text {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inWord = r, true
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n'):
			if inWord {
				out = append(out, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, invalid(what, "%s ends inside a quotation", kimg.Quote(text))
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}
