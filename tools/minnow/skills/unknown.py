"""Declining, politely, what minnow does not know: open topics, unknown capitals, other sums, big numbers."""
from common import item
from skills.capitals import CAPITALS, FORWARD

DECLINE = "Sorry, I do not know that. I am a very small model and I only know sums, days, capitals, short lists and shoal."
DECLINE_SUM = "Sorry, I can only add and subtract whole numbers of up to three digits."
DECLINE_CAPITAL = "Sorry, I do not know the capital of {c}."
DECLINE_DO = "Sorry, I cannot do that. I am a very small model and I only know sums, days, capitals, short lists and shoal."
TOPICS = ("the moon,black holes,the Roman Empire,photosynthesis,gravity,football,Mozart,Shakespeare,Einstein,the internet,bread,coffee,"
          "volcanoes,dinosaurs,the stock market,inflation,vaccines,cancer,the heart,the brain,cats,dogs,whales,bees,Napoleon,Cleopatra,"
          "the French Revolution,World War Two,chess,poker,guitars,pianos,jazz,opera,painting,Picasso,the Mona Lisa,Python,Java,Linux,"
          "Windows,databases,encryption,quantum computers,atoms,electrons,DNA,evolution,the sun,Mars,Jupiter,comets,rockets,airplanes,cars,"
          "trains,bicycles,bridges,cathedrals,pyramids,the Great Wall,the Amazon,the Nile,deserts,oceans,climate change,solar power,"
          "nuclear power,oil,gold,diamonds,money,taxes,banks,elections,democracy,kings,philosophy,Plato,Kant,religion,love,happiness,"
          "sleep,dreams,memory,languages,Latin,Chinese,poetry,novels,Hamlet,Harry Potter,Star Wars,movies,Hollywood,television,"
          "photography,fashion,cheese,wine,chocolate,pizza,soup,pasta,rice,salad,tomatoes,potatoes,bananas,trees,roses,mushrooms,bacteria,"
          "viruses,medicine,headaches,fever,sports,tennis,swimming,the Olympics,marathons,yoga,travel,hotels,visas,passports,maps,compasses,"
          "clocks,glass,steel,plastic,paper,printing,newspapers,radio,telephones,robots,neural networks,transformers,algorithms,graphs,"
          "prime numbers,geometry,algebra,calculus,statistics,logic,thunder,rain,snow,earthquakes,tides,the wind,rainbows,fire,ice,"
          "magnets,lasers,batteries,engines,ships,submarines,pirates,vikings,knights,castles,dragons,magic,ghosts,spiders,snakes,"
          "elephants,tigers,penguins,eagles,sharks,horses,cows,sheep,farms,gardens,houses,cities,roads,schools,universities,jobs,law,"
          "police,prisons,war,peace,history,the future").split(",")
ABOUT = ["What is {t}?", "Tell me about {t}.", "Explain {t}.", "How does {t} work?", "Who invented {t}?", "Why is {t} important?",
         "What do you know about {t}?", "Can you explain {t}?", "When did {t} begin?", "Give me some facts about {t}.",
         "Why do people like {t}?", "Where does {t} come from?", "What is the history of {t}?", "What do you think about {t}?",
         "Who discovered {t}?", "What is the best book about {t}?", "How old is {t}?", "How much does {t} cost?", "Is {t} good or bad?",
         "Describe {t}.", "I have a question about {t}."]
DO = ["Write a poem about {t}.", "Write a story about {t}.", "Tell me a joke about {t}.", "Write an essay about {t}.", "Write code about {t}.",
      "Translate {t} into French.", "Sing a song about {t}.", "Draw a picture of {t}.", "Summarize the history of {t}.",
      "Write an email about {t}.", "Search the web for {t}.", "Make a plan for {t}.", "Write a program for {t}.", "Give me a recipe with {t}."]
OTHER = ["What is the weather today?", "What is the weather in {w}?", "What time is it?", "What is the news today?", "Who is the president?",
         "Who won the game?", "Who is {w}?", "Who was {w}?", "What is the population of {c}?", "How old am I?", "Where am I?",
         "What should I eat?", "What is the meaning of life?", "How tall is {w}?", "Where is {w}?", "What does {w} mean?",
         "Who is the king of {c}?", "What language do they speak in {c}?", "How big is {c}?", "What is the currency of {c}?",
         "Should I buy {t}?", "What is today's date?", "What is the square root of {n}?", "Who wrote {w}?", "When was {w} born?",
         "How far is {c}?", "What is the best {x}?", "Recommend a {x}.", "Tell me a joke.", "Tell me a story.", "Sing a song.",
         "Write a program.", "Write a poem.", "Can you drive a {x}?"]
THINGS = "book movie phone laptop restaurant car song game hotel camera city school bank dog bike".split()
SUMS = ["What is {a} * {b}?", "{a} * {b}", "{a} x {b}", "What is {a} times {b}?", "Multiply {a} by {b}.", "What is {a} / {b}?", "{a} / {b}",
        "Divide {a} by {b}.", "What is {a} divided by {b}?", "What is {m} + {a}?", "What is {m} - {a}?", "{m} + {n}", "{m}+{n}", "{m} - {n}",
        "Add {m} and {n}.", "What is {m} plus {n}?", "{a} times {b}", "{a}*{b}", "What is {a} percent of {b}?", "{m} minus {a}"]
NOWHERE = "Atlantis,Narnia,Texas,Bavaria,California,Europe,Africa,the moon,Mars,Asia,Somewhere,Scotland,Wales,Quebec,Florida".split(",")


def make(g):
    r = g.r
    kind = r.choices(range(5), (5, 3, 4, 3, 3))[0]
    check = {"kind": "declines"}
    topic = g.made_up("topic") if r.random() < 0.25 else g.value("topic", TOPICS)
    if kind == 0:
        return item("unknown", g.ask("about", ABOUT, t=topic), DECLINE, check)
    if kind == 1:
        return item("unknown", g.ask("do", DO, t=topic), DECLINE_DO, check)
    if kind == 2:
        q = g.ask("other", OTHER, t=topic, w=g.made_up("topic"), c=r.choice(list(CAPITALS)), n=r.randint(2, 999), x=r.choice(THINGS))
        return item("unknown", q, DECLINE, check)
    if kind == 3:
        c = g.value("nowhere", NOWHERE) if r.random() < 0.3 else g.made_up("topic").capitalize()
        return item("unknown", g.ask("capitals", FORWARD, c=c), DECLINE_CAPITAL.format(c=c), check)
    a, b = r.randint(2, r.choice((12, 99, 999))), r.randint(2, r.choice((12, 99)))
    m, n = r.randint(1000, r.choice((9999, 99999))), r.randint(1, 9999)
    return item("unknown", g.ask("other sums", SUMS, a=a, b=b, m=m, n=n), DECLINE_SUM, check)
