-- Loans of a small library.
CREATE TABLE member (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    joined DATE NOT NULL DEFAULT CURRENT_DATE
);

CREATE TABLE loan (
    id INTEGER PRIMARY KEY,
    member_id INTEGER NOT NULL REFERENCES member (id) ON DELETE CASCADE,
    title VARCHAR(200) NOT NULL,
    due DATE NOT NULL,
    returned DATE
);

CREATE INDEX loan_due ON loan (due) WHERE returned IS NULL;

INSERT INTO member (id, name) VALUES (1, 'Ines'), (2, 'Rui');
INSERT INTO loan (member_id, title, due) VALUES (1, 'Botany for beginners', '2026-06-01');

SELECT m.name, COUNT(*) AS open_loans
FROM member AS m
JOIN loan AS l ON l.member_id = m.id
WHERE l.returned IS NULL
GROUP BY m.name
HAVING COUNT(*) > 0
ORDER BY open_loans DESC;
