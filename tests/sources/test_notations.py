"""Notations of secrets that outsiders wrote and the patterns had missed, and harmless text beside each that stays."""
# ruff: noqa: E501

from collections import Counter

import pytest

from mipo_mlx.sources.redact import redact

from .made_up import SECRET

HEX = "0f3a9b27c4d1e8560f3a9b27c4d1e856"
TOKEN = "Zk3Qp9Lm2Xv7Tn4Bs8Wd"


@pytest.mark.parametrize(
    "text",
    [
        # a word between the label and the sign
        "WLAN-Schlüssel Gartenhaus = «Boot-am-Steg-Nord»",
        "Passwort Bücherei: «Leseratte-im-Sessel»",
        "password cottage => «Marmalade!7»",
        # a list below its heading
        "Passwörter\nBank: «Gurke!88»\nPost: «Tomate?12»\nVerein: «Rettich_3»",
        "Passwords\n- mail: «Turnip!88»\n- shop: «Radish?12»",
        "contraseñas\ncorreo = «Pera!88»\ntienda = «Higo?12»",
        # the old one beside the new one
        "Password (old): «Sommer18» / new: «Winter19»",
        "My password is now «Rhubarb$44», old one was «Rhubarb$43»",
        "Passwort alt: «Birne!7», neu: «Apfel!8»",
        # a second code in a sentence
        "PIN der EC-Karte: «4917», die von der Kreditkarte «8820»",
        "Gate code is «4471»#, alarm «9902»",
        "PIN for the bank: «58213», for the card «4471»",
        # inflected, joined and shortened words
        "Lösenordet till wifi är «Midsommar24»",
        "pinkoden till kortet är «9021»",
        "palavra-passe: «Sardinha#2»",
        "ww: «stroopwafel99»",
        "PIN do karty to «3319»",
        "Le mdp du NAS c'est «tartine-beurre-7»",
        "Tresor-Code ist «19 04 77»",
        "Handy entsperren: «2580»",
        "Hoftor: «6620»",
        "neues Kennwort fürs Forum – «Zaunkönig.9»",
        "mot de passe Impots.gouv → «Lila!4455»",
        "la password nuova è «Fragola#5»",
        "apple id pw changed to «Juniper%21»",
        "code wifi : «baguette-chaude-8»",
        "code van het hek: «2233»",
        "kod till larmet: «6644»",
        "pin do telemóvel «1379»",
        "telefonun pini «1453»",
        "パスコードは«258036»",
        "samordningsnummer «701063-2391»",
        "загранпаспорт «75 1234567»",
        # combinations of locks
        "lockbox on the railing, combo «3-1-7-9»",
        "safe: «left 22, right 7, left 31»",
        "Tresor: «links 12, rechts 40, links 9»",
        # codes with signs, and phrases of several words
        "Anmeldename: kmeier77, PIN: «a8Kz!»",
        'the wifi at mom\'s is "«blueberry pancakes 4ever»"',
        "pass: «correct horse battery staple»",
        "Kartennummer steht drauf, Prüfziffer «737»",
        # recovery codes and their lists
        "GitHub recovery: «3f2a1-9bc04» «a81c7-0d3ef»",
        "Backup-Codes Google:\n1. «8342 1190»\n2. «7753 0021»",
        "2FA secret: «jbsw y3dp ehpk 3pxp jbsw y3dp ehpk 3pxp»",
        "gmail app password «abcd efgh ijkl mnop»",
        "seed phrase\n1 «ozone»\n2 «drill»\n3 «grab»\n4 «fiber»\n5 «curtain»\n6 «grace»\n7 «pudding»\n8 «thank»\n9 «cruise»\n10 «elder»\n11 «eight»\n12 «picnic»",
        # what services and programs write
        f"https://acme.webhook.office.com/webhookb2/«1b2c3d4e-1111-4222-a333-444455556666@{HEX}/IncomingWebhook/{HEX}»",
        f"vercel_blob_rw_«{TOKEN}_{TOKEN}»",
        "DeepL: «1b2c3d4e-1111-4222-a333-444455556666:fx»",
        "mysql -u root -p«KcsNgaKiIRf» bees",
        "sshpass -p '«Tulpen im Mai!»' ssh karl@nas.local",
        "| site | user | pw |\n|---|---|---|\n| mail | karl | «Owl-in-Rain5» |",
        "creds for the NAS: karl / «Thunder&Plum2»",
        "Login Stadtbücherei: karl.meier / «Lesen2024!»",
        # in the line of its word, with any words between, before it or behind it
        "Das Kennwort hat Karl gestern auf «Hummel_Nest9» gesetzt",
        "I set «Otter$Moon4» on the tablet last night, tell me if the password works",
        "j'ai mis «Coccinelle#5» comme mot de passe sur l'iPad",
        "la contraseña de la tele, si te la piden, sería «Cangrejo.77» desde ayer",
        "ustawiłam hasło na «Jezyk!2043» w poniedziałek",
        "Netflix şifresini «Ayva#771» yaptım",
        "пароль от роутера сменил на «Снегирь_41», запиши",
        "Reisepass Anton «C7XKM20P4» liegt im Flur",
        "My passport, the new one, is «AB1234567»",
        # a number that something with a lock takes
        "the shed padlock pops open with «4182»",
        "um die Garage zu öffnen «3390» eintippen",
        "pour ouvrir le portail il faut taper «6128»",
        "para abrir el portal marca «2207» y campana",
        "de poort gaat open met «5518»",
        "Alarmı «5543» ile kapat",
        "ドアは«7719»で開きます",
        "门锁按«660217»就开",
        "Kellertür hat jetzt «44-71-90», erst rechts",
        "the last digits on the back are «415»",
        # by their form alone
        "konto babci «61 1090 1014 0000 0712 1981 2874»",
        "backup-tool push -k «hR72mqKd41Zw» nightly",
        "Netzwerk: Seerose / «karpfen-im-teich5»",
        "the lockbox hangs at the fence, turn it to «6138»",
        "bike locker by the canal - «4418» to unlock",
        "my pass phrase is «velvet anchor turnip cloud»",
        "Klingelcode Praxis «0915*»",
        "clave de la alarma del taller, «5521»",
        "Пинкод карты «6072»",
        "the new laptop password (it's «Paloma7!x»)",
        # in signs, groups and lines of their own
        "| Nombre | DNI |\n|---|---|\n| Tía Rosa | «41.207.385-K» |",
        "Versichertennummer TK «Z443178351»",
        "Tablet unlock\n→ «604918»",
        "Schweizer Konto\n«ch9 300 762 011 623 852 957»",
        "gewoon op «NL 91 AB NA 04 17 16 43 00» tnv Kees",
        "Zugangsdaten Chor → kasse / «tKv7!quendel»",
        "マイナンバー\n«2370 8576 7534»",
        'Borg repo\nkey phrase -> "«walnut tuesday elbow trumpet»"',
        "the p/w has been «Kettle88frogs» since spring",
        "2FA geheim van het testaccount: «FT2AAMMSZYVJY4IH»",
        "frase semilla → «cereal, glide, elite, gadget, renew, work, flower, debate, leave, believe, rely, youth»",
        "Zeile vom Pass: «L12KR922<2D<<8306199F3102271<<<<<<<<<<<<<<00»",
        # behind an address
        "Shop: ask Nell, use nell.k@example.org with «Tulpe88zwiebel»",
        "kurt@example.com / «Zugspitze1962» für die Bahn",
        # the answers of a bank's questions
        "mother's maiden name: «Okonjo»",
        "Mädchenname der Mutter -> «Osterloh»",
        "Security question: name of first school? «Lindenhof»",
        "first pet? «Schnurri» (bank security question)",
        "Pregunta de seguridad = «Trueno»",
    ],
)
def test_further_notations_of_secrets(text):
    plain = text.replace("«", "").replace("»", "")
    found = redact(plain, Counter())
    for secret in SECRET.findall(text):
        assert secret not in found, found


@pytest.mark.parametrize(
    "text",
    [
        "Das WLAN im Zug ist wieder kaputt, 45 Minuten offline.",
        'the wifi at the cabin is "terribly slow today"',
        "Pass: 3 attempts, all fine",
        "ww1 museum opens at 10, ww2 at 11",
        "I unlock my phone 120 times a day",
        "Recovery: 45 minutes easy, 130 bpm",
        "Boxing combo 1-2-3-2, then slip",
        "PIN 13 of the Arduino drives the LED",
        "Passwords\nare tiresome: I forget them",
        "password: I should really use a manager, new: next week",
        "range 12345-54321 of the catalogue",
        "Dose 400-600-800, next 1200",
        "turn left 2 times, right 1 time, and you see the mill",
        "commit 3f2a1c9 broke it, pages 12345-12399 mended it",
        "the app password page moved again last week somewhere",
        "Contraseña: preguntar a Marta",
        "deadbeef is a funny word, cafe1-babe2 too",
        "zip code of Graz: 80104, error code for the pump: 4023",
        "le code de la route: 2020 edition",
        "pin the map of 1905 above the desk",
        "Password managers: BitWarden | 1Password | KeePassXC",
        "Password policy: 12-character minimum!",
        "We store the password with ISO27001 in mind, see RFC4226 and Python-3.11",
        "password reset needs the form user_form_2 and mail2.example.org",
        "The gate was painted with 2000 people watching",
        "garage rebuilt with 12000 euros from the bank",
        "code 2024 of the building regulations, door left",
        "the alarm rang, safe until 12-04-23",
        "passport office opens at nine, ticket B1234567",
        "docker run -v DataVol1aB -p 8080:80, kubectl -n Team4Apps2 get pods",
        "The network: nodes / edges3 and layers",
        "パスワードは毎年変更してください",
        "the alarm rang at the office, 1830",
        "My first pet was a hamster? No, a cat.",
        "Security questions are silly: nobody remembers them.",
        "What is the security question? I forgot.",
        "Her maiden name is lovely: it means river.",
        "The secret question of life: why?",
        "The passphrase is hard to remember for me",
        "Turn to page 5038 of the book by the door.",
    ],
)
def test_what_looks_like_them_stays(text):
    assert redact(text, Counter()) == text
