package kimg

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what people are shown (failure model, P9).
const (
	maxLine = 1024 // one error line, in bytes
	maxEcho = 256  // one piece of input inside it
)

// Line renders an error as the one line that people read: "class: what: cause". Control characters are escaped and
// the line is at most 1 KiB long, whatever the input that caused it.
func Line(err error) string {
	if err == nil {
		return ""
	}
	return Escape(string(ClassOf(err))+": "+err.Error(), maxLine)
}

// Quote renders a piece of input for an error text: quoted, escaped, at most 256 bytes of it.
func Quote(input string) string { return `"` + Escape(input, maxEcho) + `"` }

// Escape makes text safe for a terminal and bounds it to max bytes: control and non-printable characters and invalid
// UTF-8 become backslash escapes, and a cut text ends in "…".
func Escape(text string, max int) string {
	var b strings.Builder
	const hex = "0123456789abcdef"
	const ellipsis = "…"
	mark := 0 // where the text may be cut so that the ellipsis still fits
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		piece := text[i : i+n]
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) {
			piece = ""
			for _, c := range []byte(text[i : i+n]) {
				piece += `\x` + string(hex[c>>4]) + string(hex[c&15])
			}
		}
		if b.Len()+len(piece) > max {
			return b.String()[:mark] + ellipsis
		}
		b.WriteString(piece)
		if b.Len()+len(ellipsis) <= max {
			mark = b.Len()
		}
		i += n
	}
	return b.String()
}
