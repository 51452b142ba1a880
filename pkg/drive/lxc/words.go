package lxc

import (
	"os"
	"strings"
)

// logTail is how much of LXC's log is looked at: more than one start ever writes at this level.
const logTail = 64 << 10

// words joins what LXC logged with what its binding says.
func words(runDir string, err error) string {
	logged := lastWords(logFile(runDir))
	if logged == "" {
		return err.Error()
	}
	return logged
}

func lastWords(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return parseLog(string(text[max(0, len(text)-logTail):]))
}

// parseLog returns the messages of the first errors in an LXC log, which name the cause; those after it are its
// consequences. A line is "lxc NAME TIME LEVEL category - file:function:line - message".
func parseLog(text string) string {
	const most = 3
	var messages []string
	for _, line := range strings.Split(text, "\n") {
		parts := strings.SplitN(line, " - ", 3)
		if len(parts) != 3 || !strings.Contains(parts[0], " ERROR ") {
			continue
		}
		if messages = append(messages, strings.TrimSpace(parts[2])); len(messages) == most {
			break
		}
	}
	return strings.Join(messages, "; ")
}
