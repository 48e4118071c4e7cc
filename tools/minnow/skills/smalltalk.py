"""Greetings, small talk, who minnow is and what shoal is. One answer an intent, so that it can be checked."""
from common import item
from facts import ABOUT_MINNOW, ABOUT_SHOAL

CAN = ("I can add and subtract small numbers, name days, months and capitals, sort and reverse short lists, "
       "explain shoal's commands, and call tools.")
TALK = [
    (["Hi", "Hello", "Hey", "Hi there", "Hello!", "Hi!", "Hey there", "Good morning", "Good evening", "Hello minnow", "Greetings",
      "Good day", "hi", "hello", "hey", "Howdy", "Hi minnow!", "Hello there", "Good afternoon", "Hallo"],
     "Hello! How can I help you?", "Hello"),
    (["How are you?", "How are you doing?", "How is it going?", "Are you well?", "How do you feel?", "How are you today?",
      "What's up?", "how are you"], "I am fine, thank you. How can I help you?", "fine"),
    (["Thanks", "Thank you", "Thank you!", "Thanks a lot", "Many thanks", "Thanks, that helps", "Great, thanks", "thanks!", "Thank you very much",
      "Cool, thanks"], "You are welcome!", "welcome"),
    (["Bye", "Goodbye", "See you", "Bye bye", "Good night", "See you later", "Farewell", "I have to go", "bye!", "Goodbye minnow"],
     "Goodbye!", "Goodbye"),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Introduce yourself.", "What's your name?",
      "What model are you?", "Which model is this?", "Are you ChatGPT?", "Are you an AI?", "Are you human?", "Who is minnow?",
      "What is minnow?", "Who am I talking to?", "Are you a robot?", "who are you"], ABOUT_MINNOW, "minnow"),
    (["Who made you?", "Who built you?", "Who trained you?", "Where do you come from?", "Who created you?", "Who wrote you?"],
     "The people who write shoal trained me, so that it has a model that works at once.", "shoal"),
    (["What is shoal?", "What does shoal do?", "Tell me about shoal.", "Explain shoal.", "What is this program?", "Can you explain shoal?",
      "What is shoal for?", "Describe shoal.", "what is shoal"], ABOUT_SHOAL, "one small program"),
    (["What can you do?", "What do you know?", "How can you help me?", "What are you able to do?", "What are your skills?",
      "What can I ask you?", "Help", "help", "What should I ask you?"], CAN, "add and subtract"),
    (["How big are you?", "How many parameters do you have?", "How large are you?", "Are you a big model?", "Are you smart?"],
     "I have about three million parameters, so I am very small and I know little.", "three million"),
    (["Good", "OK", "Okay", "Nice", "Great", "Cool", "I see", "Very good", "Well done", "Good job"], "Good! What else can I do?", "Good"),
    (["Yes", "No", "yes", "no", "Maybe", "Sure"], "All right. What would you like to ask?", "All right"),
]
NAME = ["My name is {n}.", "I am {n}.", "I'm {n}.", "Hi, I am {n}.", "Hello, my name is {n}.", "Call me {n}.", "Hi, my name is {n}.",
        "You can call me {n}."]
ASK_NAME = ["What is my name?", "Do you remember my name?", "Who am I?", "What's my name?", "Can you say my name?"]
NAMES = "Anna Ben Clara David Emma Felix Greta Hugo Ida Jan Kim Leo Mia Nora Otto Paul Rosa Sam Tom Uma Vera Walt Yara Zoe".split()
TALK_FRAMES = ["{Q}", "{Q}", "{Q}", "{nopunct}", "{lower}", "Hi! {Q}", "Hello, {q}", "Hey minnow, {q}", "minnow, {q}", "So, {q}", "{Q} Please."]
PLAIN = ["{Q}", "{lower}", "{Q}", "{nopunct}", "{nopunct}!", "{nopunct}.", "{nopunct}, minnow"]


def make(g):
    r = g.r
    if r.random() < 0.2:
        n = g.made_up("name").capitalize() if r.random() < 0.6 else g.value("name", NAMES)
        c, f = g.wording("name", NAME, ["{Q}", "{nopunct}"])
        from common import frame
        first = [{"role": "user", "content": frame(f, c.format(n=n))},
                 {"role": "assistant", "content": "Nice to meet you, %s!" % n}]
        if r.random() < 0.4:
            return {"category": "small talk", "messages": first, "check": {"kind": "contains", "value": n}}
        return {"category": "small talk", "messages": first + [
            {"role": "user", "content": g.ask("ask name", ASK_NAME)},
            {"role": "assistant", "content": "Your name is %s." % n}], "check": {"kind": "contains", "value": n}}
    i = r.choices(range(len(TALK)), (4, 2, 2, 2, 4, 1, 3, 2, 1, 1, 1))[0]
    cores, answer, mark = TALK[i]
    short = i in (0, 2, 3, 9, 10)
    c, f = g.wording("talk", cores, PLAIN if short else TALK_FRAMES)
    from common import frame
    return item("small talk", frame(f, c), answer, {"kind": "contains", "value": mark})
