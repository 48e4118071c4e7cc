"""Capitals: a table of countries, asked both ways. A country outside the table is declined (see unknown.py)."""
from common import PROPER, item

CAPITALS = dict(x.split(":") for x in (
    "France:Paris,Germany:Berlin,Italy:Rome,Spain:Madrid,Portugal:Lisbon,Austria:Vienna,Belgium:Brussels,Greece:Athens,"
    "Ireland:Dublin,Norway:Oslo,Sweden:Stockholm,Denmark:Copenhagen,Finland:Helsinki,Iceland:Reykjavik,Poland:Warsaw,"
    "Hungary:Budapest,Romania:Bucharest,Bulgaria:Sofia,Croatia:Zagreb,Serbia:Belgrade,Slovenia:Ljubljana,"
    "Slovakia:Bratislava,Ukraine:Kyiv,Russia:Moscow,Turkey:Ankara,Estonia:Tallinn,Latvia:Riga,Lithuania:Vilnius,"
    "Switzerland:Bern,the Netherlands:Amsterdam,the United Kingdom:London,the Czech Republic:Prague,Malta:Valletta,"
    "Cyprus:Nicosia,Albania:Tirana,China:Beijing,Japan:Tokyo,India:New Delhi,Nepal:Kathmandu,Pakistan:Islamabad,"
    "Bangladesh:Dhaka,Thailand:Bangkok,Vietnam:Hanoi,Indonesia:Jakarta,the Philippines:Manila,South Korea:Seoul,"
    "North Korea:Pyongyang,Mongolia:Ulaanbaatar,Iran:Tehran,Iraq:Baghdad,Syria:Damascus,Lebanon:Beirut,Jordan:Amman,"
    "Saudi Arabia:Riyadh,Qatar:Doha,Afghanistan:Kabul,Egypt:Cairo,Libya:Tripoli,Tunisia:Tunis,Algeria:Algiers,"
    "Morocco:Rabat,Sudan:Khartoum,Ethiopia:Addis Ababa,Kenya:Nairobi,Uganda:Kampala,Rwanda:Kigali,Ghana:Accra,"
    "Nigeria:Abuja,Senegal:Dakar,Mali:Bamako,Angola:Luanda,Zambia:Lusaka,Zimbabwe:Harare,Namibia:Windhoek,"
    "the United States:Washington,Canada:Ottawa,Mexico:Mexico City,Cuba:Havana,Jamaica:Kingston,Brazil:Brasilia,"
    "Argentina:Buenos Aires,Chile:Santiago,Peru:Lima,Colombia:Bogota,Ecuador:Quito,Venezuela:Caracas,"
    "Uruguay:Montevideo,Paraguay:Asuncion,Australia:Canberra,New Zealand:Wellington,Fiji:Suva").split(","))
for _c, _t in CAPITALS.items():
    PROPER.update((_c.split()[0], _t.split()[0]))
PROPER.discard("the")

FORWARD = ["What is the capital of {c}?", "What's the capital of {c}?", "Which city is the capital of {c}?", "Capital of {c}?",
           "Tell me the capital of {c}.", "Name the capital of {c}.", "What is the capital city of {c}?",
           "Do you know the capital of {c}?", "The capital of {c} is what?", "Which is the capital of {c}?"]
BACKWARD = ["Which country has {t} as its capital?", "{t} is the capital of which country?", "What country is {t} the capital of?",
            "Of which country is {t} the capital?", "Whose capital is {t}?"]


def make(g):
    c, t = g.r.choice(list(CAPITALS.items()))
    if g.r.random() < 0.7:
        return item("capitals", g.ask("capitals", FORWARD, c=c), "The capital of %s is %s." % (c, t),
                    {"kind": "contains", "value": t})
    return item("capitals", g.ask("capitals back", BACKWARD, t=t), "%s is the capital of %s." % (t, c),
                {"kind": "contains", "value": c})
