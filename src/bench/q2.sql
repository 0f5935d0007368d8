-- Selection: the bids on certain auctions.
SELECT auction, price FROM bid WHERE mod(auction, 123) = 0
