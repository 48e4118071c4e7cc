"""The facts about shoal that minnow learns: ONE table, to be regenerated from the program's own option table.

COMMANDS: name -> (usage, what it does as a phrase after "It", how a user asks for the goal).
OPTIONS:  the options of `shoal serve`: flag -> (what it sets, default or None, unit words).
Nothing else in the generator names a command, an option or a default.
"""

COMMANDS = {
    "serve": ("shoal serve", "starts the server", ["start the server", "run the server", "launch the server"]),
    "run": ("shoal run MODEL", "asks a model one question", ["ask a model one question", "run a model once",
                                                          "ask one question from the shell"]),
    "chat": ("shoal chat", "opens a chat in the terminal", ["chat in the terminal", "open a chat",
                                                          "talk to a model in the terminal"]),
    "list": ("shoal list", "lists the models on this machine", ["list my models", "see which models I have",
                                                              "list the models on this machine"]),
    "ps": ("shoal ps", "shows the models that are loaded", ["see the loaded models", "see what is loaded",
                                                           "list the running models"]),
    "show": ("shoal show MODEL", "shows the details of a model", ["see the details of a model",
                                                                "look at a model file", "inspect a model"]),
    "bench": ("shoal bench", "measures the speed of a model", ["measure the speed", "benchmark a model",
                                                             "test how fast a model is"]),
    "doctor": ("shoal doctor", "checks this machine for problems", ["check my machine", "find problems with my setup",
                                                                  "check this machine for problems"]),
    "tokenize": ("shoal tokenize", "turns text into tokens", ["turn text into tokens", "tokenize a text",
                                                             "see the tokens of a text"]),
    "render": ("shoal render", "shows the prompt that a chat becomes", ["see the prompt of a chat",
                                                                     "render a chat template", "see the rendered prompt"]),
    "logits": ("shoal logits", "prints the logits of a model", ["print the logits", "see the logits of a model",
                                                               "get raw logits"]),
    "paths": ("shoal paths", "prints the folders that shoal uses", ["see which folders shoal uses",
                                                                  "find the folders of shoal", "print the folders"]),
    "help": ("shoal help", "says what a command does", ["get help on a command", "see the help", "read about a command"]),
    "completions": ("shoal completions", "prints the completion script of a shell",
                    ["get shell completions", "complete commands in my shell", "set up tab completion"]),
    "plan": ("shoal plan", "shows how a model would be split over machines", ["see how a model is split",
                                                                           "plan a split over machines",
                                                                           "plan a cluster"]),
}

OPTIONS = {
    "--listen": ("the address that the server listens on", "127.0.0.1", ["listen address", "address"]),
    "--port": ("the port of the server", "52415", ["port", "port number"]),
    "--api-key": ("the key that clients must send", None, ["API key", "client key"]),
    "--ctx": ("the length of the context in tokens", None, ["context length", "context size"]),
    "--keep-alive": ("how long an idle model stays loaded", "30 minutes", ["keep-alive time", "idle time"]),
    "--threads": ("the number of threads that compute", "all cores", ["number of threads", "thread count"]),
    "--log": ("how much is logged", "info", ["log level", "logging level"]),
    "--kv": ("the type of the key/value cache", None, ["key/value cache type", "KV cache type"]),
}

URL = "http://localhost:52415"
ABOUT_SHOAL = ("shoal is one small program that turns the machines you own into one computer for language models. "
               "It serves them at " + URL + ".")
ABOUT_MINNOW = "I am minnow, a very small language model that lives inside shoal."
